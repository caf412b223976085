//! Events of streams as servers write them, and parts of them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Events of all kinds, and parts of them.
pub(crate) const PIECES: [&str; 34] = [
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ath\"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n",
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\u{fc}\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":6}}\r\n\r\n",
    "data: {\"choices\": [{\"delta\": {\"reasoning_content\": \"hm\"}}]}\r\n\r\n",
    "data: {\"choices\":[{\"text\":\"x\"}]}\n\n",
    "data: {\"text\":\"y\"}\n\n",
    "data: {\"text\":\"\"}\n\n",
    "data: [DONE]\n\n",
    "data:[DONE]\r\n\r\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\" O\"}}\n\n",
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"role\":\"assistant\",\"content\":[]}}\n\n",
    "event: response.output_text.delta\ndata: {\"content_index\":0,\"delta\":\"di\",\"item_id\":\"m\"}\n\n",
    "event: response.output_text.done\ndata: {\"type\":\"x\",\"item_id\":\"m\",\"text\":\"all\"}\n\n",
    "data: {\"response\":{\"id\":\"r\",\"error\":null,\"text\":\"t\"}}\n\n",
    "data: {\"item\":{\"arguments\":\"{}\",\"delta\":\"d\"}}\n\n",
    "data: {\"error\":{\"message\":\"dead\"}}\n\n",
    "event: error\ndata: {}\n\n",
    "event: response.failed\r\n\r\n",
    "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"The\"},\"done\":false}\n",
    "{\"model\":\"m\",\"response\":\"a\",\"done\":false}\n",
    "{\"model\":\"m\",\"response\":\"\",\"done\":true}\n",
    "{\"function\":{\"arguments\":{\"a\":1}}}\n{\"arguments\":{}}\n",
    ": ping\n\n",
    "id: 7\nretry: 3\n",
    "data: {\"k\":1}\n\n",
    "data: {\"a\":\"\\\"text\\\":\\\"x\",\"delta\":null,\"choices\":0}\n\n",
    "data\n",
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"{\\\"\"}}]}}]}\n\n",
    "data: {\"choices\":[",
    "\"content\":\"",
    "\n",
    "\r",
];

/// The bytes of a stream's chunks: an event each, or cut anywhere.
pub(crate) fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let blanks = prop_oneof![3 => Just(0usize), 1 => 0usize..80];
    let sizes = vec(prop_oneof![2 => 1usize..40, 1 => 40usize..900], 1..6);
    (vec((select(PIECES.to_vec()), blanks), 1..14), sizes, any::<bool>()).prop_map(|(events, sizes, whole)| {
        let with_blanks = |(piece, blanks): &(&str, usize)| piece.replacen('{', &format!("{{{:blanks$}", ""), 1);
        let events: Vec<_> = events.iter().map(with_blanks).collect();
        if whole {
            return events.into_iter().map(String::into_bytes).collect();
        }
        let bytes = events.concat().into_bytes();
        let (mut parts, mut rest) = (vec![], &bytes[..]);
        for &size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, after) = rest.split_at(size.min(rest.len()));
            parts.push(part.to_vec());
            rest = after;
        }
        parts
    })
}

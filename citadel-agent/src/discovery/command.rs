//! Extracts the name of the served model from a command line. Pure.

use crate::printable::without_hidden;

/// Options that name a model, first those that set the name for clients: vLLM's and SGLang's `--served-model-name`,
/// llama.cpp's `--alias` and `-a`, then `--model`, `--model-path` and llama.cpp's `-m`.
const OPTIONS: [&[&str]; 3] = [&["--served-model-name"], &["--alias", "-a"], &["--model", "--model-path", "-m"]];

/// Prefix of a model's directory in the Hugging Face cache: `models--ORG--NAME`.
const CACHED: &str = "models--";

/// Maximum length of an external name in bytes.
const MAX_NAME: usize = 128;

/// The name of the model in these arguments, if any.
#[must_use]
pub fn model(arguments: &[String]) -> Option<String> {
    // `python -m module` and `sh -c` are not options of the server: they come before the program's name.
    let own = match arguments.iter().position(|word| word == "-m") {
        Some(at) if is_python(arguments) && arguments[1..at].iter().all(|word| word.starts_with('-')) => {
            arguments.get(at + 2..)?
        }
        _ => arguments.get(1..)?,
    };
    OPTIONS.iter().find_map(|names| option(own, names)).or_else(|| positional(arguments)).and_then(|name| tidy(&name))
}

/// Derives a name: for a path, the file name; for a path in the Hugging Face cache, whose last part is a commit, the
/// name of the cached model. Characters that do not belong in a label are removed.
#[must_use]
pub fn tidy(name: &str) -> Option<String> {
    let path = name.strip_suffix('/').unwrap_or(name);
    let name = match cached(path) {
        Some(model) => model,
        None if path.starts_with(['/', '.', '~']) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        None => path.to_owned(),
    };
    let name = name.strip_suffix(".gguf").unwrap_or(&name);
    let mut name = without_hidden(name).into_owned();
    let end = (0..=MAX_NAME.min(name.len())).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    name.truncate(end);
    (!name.trim().is_empty()).then_some(name)
}

/// `ORG/NAME` of a path that ends in `models--ORG--NAME`, or in a snapshot or blob of it.
fn cached(path: &str) -> Option<String> {
    let mut parts = path.rsplit('/');
    let last = parts.next()?;
    let model = match last.strip_prefix(CACHED) {
        Some(model) => model,
        None => {
            let within = parts.next().filter(|within| matches!(*within, "snapshots" | "blobs"));
            within.and_then(|_| parts.next()?.strip_prefix(CACHED))?
        }
    };
    Some(model.replacen("--", "/", 1))
}

/// The value of the last of these options, as `--name VALUE` or `--name=VALUE`.
fn option(arguments: &[String], names: &[&str]) -> Option<String> {
    let mut found = None;
    for (at, word) in arguments.iter().enumerate() {
        let (name, joined) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        if names.contains(&name) {
            let value = joined.or_else(|| arguments.get(at + 1).map(String::as_str));
            found = value.filter(|value| !value.is_empty() && !value.starts_with('-')).or(found);
        }
    }
    found.map(str::to_owned)
}

/// MODEL of `vllm serve MODEL`.
fn positional(arguments: &[String]) -> Option<String> {
    let serve = arguments.iter().position(|word| word == "serve")?;
    let program = arguments.get(serve.checked_sub(1)?)?;
    let model = arguments.get(serve + 1)?;
    (program.rsplit('/').next() == Some("vllm") && !model.starts_with('-')).then(|| model.clone())
}

fn is_python(arguments: &[String]) -> bool {
    arguments.first().and_then(|program| program.rsplit('/').next()).is_some_and(|name| name.starts_with("python"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Option<String> {
        model(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn servers_name_their_model() {
        for (line, name) in [
            (
                "/usr/bin/python3 -m vllm.entrypoints.openai.api_server --model meta-llama/Llama-3-8B --port 11400",
                "meta-llama/Llama-3-8B",
            ),
            ("python3 -m vllm.entrypoints.openai.api_server --model=x/y --served-model-name hermes alias2", "hermes"),
            ("/opt/v/bin/python /opt/v/bin/vllm serve mistralai/Mixtral-8x7B --port 11400", "mistralai/Mixtral-8x7B"),
            ("vllm serve /models/phi3/ --served-model-name=phi3", "phi3"),
            ("vllm serve /models/phi3/", "phi3"),
            ("llama-server -m /srv/models/yi-34b.Q4_K_M.gguf --port 11404", "yi-34b.Q4_K_M"),
            ("llama-server -m ./a.gguf -a coder", "coder"),
            ("python3 -m sglang.launch_server --model-path qwen/Qwen2", "qwen/Qwen2"),
            ("python3 -u -m server --model one --model two", "two"),
            (
                "vllm serve /srv/.cache/huggingface/hub/models--meta-llama--Llama-3.1-8B/snapshots/0e9e39f249a16976",
                "meta-llama/Llama-3.1-8B",
            ),
            ("vllm serve hub/models--gpt2/snapshots/607a30d783dfa663/", "gpt2"),
            ("vllm serve /hub/models--microsoft--phi-3", "microsoft/phi-3"),
            ("llama-server -m /hub/models--a--b/blobs/f8ab12", "a/b"),
            ("llama-server -m /hub/models--a--b/snapshots/0e9e/b-Q4.gguf", "b-Q4"),
            ("vllm serve /srv/snapshots/phi3", "phi3"),
        ] {
            assert_eq!(named(line).as_deref(), Some(name), "{line}");
        }
    }

    #[test]
    fn other_programs_name_none() {
        for line in [
            "",
            "nginx",
            "nginx: worker process",
            "python3 -m http.server 11400",
            "x --model",
            "x --model --port 1",
            "docker serve x",
        ] {
            assert_eq!(named(line), None, "{line}");
        }
        assert_eq!(model(&[]), None);
    }

    #[test]
    fn names_are_fit_for_a_label() {
        assert_eq!(tidy("a\n\u{7}b").as_deref(), Some("ab"));
        assert_eq!(tidy("\u{202e}a\u{2066}b\u{61c}").as_deref(), Some("ab"));
        assert_eq!(tidy("\u{200b}"), None);
        assert_eq!(tidy(" \t"), None);
        assert_eq!(tidy("/"), None);
        let long = tidy(&"é".repeat(200)).unwrap();
        assert_eq!(long, "é".repeat(64));
    }
}

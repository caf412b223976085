//! Credentials and trust, wherever a section has them.

use crate::config::mistakes::Mistakes;
use crate::config::resolved::Access;
use crate::config::section::Section;
use crate::config::value;

pub(super) fn access(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Access> {
    let username = section.optional("username", value::text, mistakes);
    let password_file = section.optional("password_file", value::absolute_path, mistakes);
    let bearer_token_file = section.optional("bearer_token_file", value::absolute_path, mistakes);
    let ca_file = section.optional("ca_file", value::absolute_path, mistakes);

    let mut refuse = |message: &str| mistakes.push(section.pos(), section.path(), message);
    if let (Some(username), Some(password_file)) = (&username, &password_file)
        && username.is_some() != password_file.is_some()
    {
        refuse("needs both username and password_file, or neither");
    }
    if matches!((&username, &bearer_token_file), (Some(Some(_)), Some(Some(_)))) {
        refuse("has both username and bearer_token_file; a request carries one of them");
    }
    Some(Access {
        username: username?,
        password_file: password_file?,
        bearer_token_file: bearer_token_file?,
        ca_file: ca_file?,
    })
}

//! From a conversation to the text a model continues.

mod json;
pub(crate) mod template;

use serde::Serialize;

/// One message of a conversation, as chat templates see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    /// `system`, `user`, `assistant` or what else the template knows.
    pub(crate) role: String,
    /// The text.
    pub(crate) content: String,
}

impl Message {
    /// Whether this message sets the frame of the conversation.
    pub(crate) fn is_system(&self) -> bool {
        self.role == "system" || self.role == "developer"
    }
}

/// Leaves out the `count` oldest messages that may go: system messages stay, and so does the last.
pub(crate) fn without_oldest(messages: &[Message], count: usize) -> Vec<Message> {
    let last = messages.len().saturating_sub(1);
    let mut left_out = 0;
    messages
        .iter()
        .enumerate()
        .filter(|(index, message)| {
            let may_go = *index != last && !message.is_system();
            let goes = may_go && left_out < count;
            left_out += usize::from(goes);
            !goes
        })
        .map(|(_index, message)| message.clone())
        .collect()
}

/// How many messages [`without_oldest`] can leave out.
pub(crate) fn removable(messages: &[Message]) -> usize {
    let last = messages.len().saturating_sub(1);
    messages
        .iter()
        .take(last)
        .filter(|message| !message.is_system())
        .count()
}

#[cfg(test)]
mod tests {
    use super::{Message, removable, without_oldest};

    fn message(role: &str, content: &str) -> Message {
        Message {
            role: role.to_owned(),
            content: content.to_owned(),
        }
    }

    #[test]
    fn the_oldest_messages_go_first_and_system_and_last_stay() {
        let messages = [
            message("system", "be brief"),
            message("user", "one"),
            message("assistant", "two"),
            message("user", "three"),
        ];
        assert_eq!(removable(&messages), 2);
        let kept = without_oldest(&messages, 1);
        assert_eq!(kept[0].content, "be brief");
        assert_eq!(kept[1].content, "two");
        let fewest = without_oldest(&messages, 100);
        assert_eq!(fewest.len(), 2);
        assert_eq!(fewest[1].content, "three");
    }
}

//! A conversation with a program at a terminal: wait for what it shows, type, wait again.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long to wait for a text.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running program and what it showed.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    seen: String,
    read_to: usize,
}

impl Terminal {
    /// Starts `command`, which must give its program a terminal, as script(1) does.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn open(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let keyboard = child.stdin.take().expect("stdin is piped");
        let mut output = child.stdout.take().expect("stdout is piped");
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            keyboard,
            screen,
            seen: String::new(),
            read_to: 0,
        }
    }

    /// Waits for a text after the one waited for last.
    ///
    /// # Panics
    /// When it does not come within a minute; the message shows what did.
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen[self.read_to..].find(text) {
                self.read_to += at + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{text:?} did not come ({error}): {:?}", self.seen),
            }
        }
    }

    /// Types a line and the Enter key.
    ///
    /// # Panics
    /// When the program is gone.
    pub fn enter(&mut self, line: &str) {
        write!(self.keyboard, "{line}\r").expect("the program reads");
        self.keyboard.flush().expect("the program reads");
    }

    /// Waits for the program's end, which must be a success.
    ///
    /// # Panics
    /// When it is not.
    pub fn ends_well(mut self) {
        let status = self.child.wait().expect("the program ends");
        assert!(status.success(), "{status}: {:?}", self.seen);
    }
}

//! `run`: ask a model, once or in a conversation.

use std::io::{IsTerminal, Read, Write};

use anyhow::{Context, Result, bail};
use rustyline::error::ReadlineError;
use serde_json::{Map, Value, json};

use crate::args::RunArgs;
use crate::endpoint;
use crate::progress::Progress;
use crate::report::{Interrupted, NotFound, escape};
use crate::runtime_client::RuntimeClient;

/// Longest prompt that is read from a pipe, in bytes.
const MAX_PROMPT_BYTES: u64 = 16 * 1024 * 1024;

const HELP: &str = "/bye      leave
/clear    forget the conversation
/help     this text
Ctrl-C    stop the answer; at the prompt, leave the line
Ctrl-D    leave";

pub(crate) async fn run(args: RunArgs) -> Result<()> {
    let client = RuntimeClient::new(endpoint::runtime(&args.runtime)?);
    ensure_here(&client, &args).await?;
    let mut conversation = Conversation::new(client, &args)?;
    let prompt = args.prompt.join(" ");
    if !prompt.is_empty() {
        return conversation.ask(&prompt).await;
    }
    if std::io::stdin().is_terminal() {
        return interact(&mut conversation, &args.reference).await;
    }
    let mut piped = String::new();
    std::io::stdin()
        .take(MAX_PROMPT_BYTES)
        .read_to_string(&mut piped)?;
    if piped.trim().is_empty() {
        bail!("no question: give one after the model's name, or on standard input");
    }
    conversation.ask(piped.trim_end()).await
}

/// Pulls the model through the runtime when it is not on this node.
async fn ensure_here(client: &RuntimeClient, args: &RunArgs) -> Result<()> {
    match client.show(&args.reference).await {
        Ok(_) => return Ok(()),
        Err(error) if error.is::<NotFound>() => {}
        Err(error) => return Err(error),
    }
    let mut progress = Progress::new();
    let pull = client.pull(&args.reference, args.plain_http, |event| {
        follow(&mut progress, &event);
        Ok(())
    });
    tokio::select! {
        pulled = pull => pulled.with_context(|| format!("pulling {}", args.reference)),
        _ = tokio::signal::ctrl_c() => Err(Interrupted.into()),
    }
}

/// Ollama's progress objects: those with a digest are about the bytes of a blob.
fn follow(progress: &mut Progress, event: &Value) {
    let status = event["status"].as_str().unwrap_or_default();
    let blob = event["digest"]
        .as_str()
        .and_then(|digest| digest.parse().ok());
    match (blob, event["total"].as_u64()) {
        (Some(blob), Some(total)) => {
            let completed = event["completed"].as_u64().unwrap_or_default();
            progress.begin_once(blob, &escape(status), total);
            progress.advance(&blob, completed);
            if completed >= total {
                progress.finish(&blob);
            }
        }
        _ => progress.note_once(&escape(status)),
    }
}

async fn interact(conversation: &mut Conversation, model: &str) -> Result<()> {
    let mut editor = rustyline::DefaultEditor::new().context("the terminal cannot be used")?;
    let history = endpoint::history_file();
    if let Some(file) = &history {
        // The first conversation has no history yet.
        let _ = editor.load_history(file);
    }
    say!("{model}: /help for help, /bye to leave")?;
    loop {
        // Reading a line blocks this thread; nothing else runs in this process meanwhile.
        let line = match editor.readline(">>> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("the terminal cannot be read"),
        };
        let line = line.trim();
        match line {
            "" => continue,
            "/bye" | "/exit" => break,
            "/clear" => conversation.forget(),
            "/help" | "/?" => say!("{HELP}")?,
            _ if line.starts_with('/') => say!("{line:?} is not a command; /help lists them")?,
            question => {
                let _ = editor.add_history_entry(question);
                match conversation.ask(question).await {
                    Ok(()) => {}
                    Err(error) if error.is::<Interrupted>() => say!("^C")?,
                    Err(error) => tell!("error: {error:#}"),
                }
            }
        }
    }
    if let Some(file) = &history {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        editor
            .save_history(file)
            .context("the history cannot be saved")?;
    }
    Ok(())
}

/// Messages so far, and how to ask.
struct Conversation {
    client: RuntimeClient,
    request: Map<String, Value>,
    messages: Vec<Value>,
    is_verbose: bool,
}

impl Conversation {
    fn new(client: RuntimeClient, args: &RunArgs) -> Result<Self> {
        let mut options = Map::new();
        if let Some(temperature) = args.temperature {
            options.insert("temperature".to_owned(), json!(temperature));
        }
        if let Some(tokens) = args.num_predict {
            options.insert("num_predict".to_owned(), json!(tokens));
        }
        let mut request = Map::new();
        request.insert("model".to_owned(), json!(args.reference));
        request.insert("options".to_owned(), Value::Object(options));
        if let Some(format) = &args.format {
            request.insert("format".to_owned(), read_format(format)?);
        }
        if let Some(keep_alive) = &args.keepalive {
            request.insert("keep_alive".to_owned(), json!(keep_alive));
        }
        let messages = args
            .system
            .iter()
            .map(|text| json!({ "role": "system", "content": text }));
        Ok(Self {
            client,
            request,
            messages: messages.collect(),
            is_verbose: args.verbose,
        })
    }

    fn forget(&mut self) {
        self.messages.retain(|message| message["role"] == "system");
    }

    /// Asks, prints the answer as it comes, and keeps both. Ctrl-C stops the answer: dropping the
    /// request tells the runtime.
    async fn ask(&mut self, question: &str) -> Result<()> {
        self.messages
            .push(json!({ "role": "user", "content": question }));
        let mut request = self.request.clone();
        request.insert("messages".to_owned(), json!(self.messages));
        let request = Value::Object(request);
        let mut answer = String::new();
        let mut last = Value::Null;
        let stream = self.client.stream("/api/chat", &request, |event| {
            if let Some(text) = event["message"]["content"].as_str() {
                answer.push_str(text);
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(escape(text).as_bytes())?;
                stdout.flush()?;
            }
            if event["done"] == true {
                last = event;
            }
            Ok(())
        });
        let outcome = tokio::select! {
            outcome = stream => outcome,
            _ = tokio::signal::ctrl_c() => Err(Interrupted.into()),
        };
        say!()?;
        self.messages
            .push(json!({ "role": "assistant", "content": answer }));
        outcome?;
        if self.is_verbose {
            print_counts(&last);
        }
        Ok(())
    }
}

/// `json` stays a word; anything else must be a schema.
fn read_format(format: &str) -> Result<Value> {
    if format == "json" {
        return Ok(json!("json"));
    }
    serde_json::from_str(format).context("--format is neither the word json nor a JSON schema")
}

fn print_counts(last: &Value) {
    for (tokens, duration, label) in [
        ("prompt_eval_count", "prompt_eval_duration", "prompt"),
        ("eval_count", "eval_duration", "answer"),
    ] {
        let count = last[tokens].as_u64().unwrap_or_default();
        let nanoseconds = last[duration].as_u64().unwrap_or_default().max(1);
        let milliseconds = nanoseconds / 1_000_000;
        let rate = u128::from(count) * 1_000_000_000 / u128::from(nanoseconds);
        tell!("{label}: {count} tokens in {milliseconds} ms, {rate} tokens/s");
    }
}

//! `make soak`: rounds of concurrent pushes, moves, deletes and collection, each ended by `kill -9`
//! at a random moment. After each the registry must hold everything it acknowledged.
//!
//! The seed decides what the clients do and when the registry is killed, counted in answers; how
//! the requests meet is up to the machine. Ends with 1 when anything was lost, and tells its history.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with a report of its own: what fails to be set up ends it"
)]

mod api;
mod check;
mod content;
mod gateway;
mod ledger;
mod site;
mod uploads;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::Server;

use crate::api::{Api, Round};
use crate::content::Contents;
use crate::ledger::Loss;
use crate::site::{Combination, Site};
use crate::worker::Worker;

/// Clients at once.
const WORKERS: usize = 8;
/// A round is over long before.
const PATIENCE: Duration = Duration::from_secs(120);
/// Losses whose history is printed.
const TOLD: usize = 5;

/// What the command line asks for.
#[derive(Debug)]
struct Settings {
    /// Rounds in all, shared out over the combinations.
    rounds: usize,
    seed: u64,
    combinations: Vec<Combination>,
}

/// What happened.
#[derive(Debug, Default)]
struct Tally {
    rounds: usize,
    requests: u64,
    resumed: usize,
    losses: Vec<Loss>,
    /// What the registry said of failures of its own.
    errors: Vec<String>,
}

fn main() -> ExitCode {
    let settings = match settings(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(message) => {
            println!("soak: {message}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let began = Instant::now();
    let mut all = Tally::default();
    println!("soak: seed {}", settings.seed);
    for (place, combination) in settings.combinations.iter().enumerate() {
        // The first ones take what does not divide evenly.
        let count = settings.combinations.len();
        let rounds = (settings.rounds + count - 1 - place) / count;
        let tally = runtime.block_on(soak(*combination, rounds, settings.seed));
        all.rounds += tally.rounds;
        all.requests += tally.requests;
        all.resumed += tally.resumed;
        all.losses.extend(tally.losses);
    }
    println!("soak: in all {}", told(&all, began));
    match all.losses.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// `--rounds N`, `--seed N`, `--only COMBINATION`.
fn settings(mut arguments: impl Iterator<Item = String>) -> Result<Settings, String> {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut settings = Settings {
        rounds: 200,
        seed: clock.unwrap_or_default().as_secs(),
        combinations: Combination::ALL.to_vec(),
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("not a number: {value}"));
        match name.as_str() {
            "--rounds" => settings.rounds = number()? as usize,
            "--seed" => settings.seed = number()?,
            "--only" => settings
                .combinations
                .retain(|combination| combination.name() == value),
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    if settings.combinations.is_empty() {
        let names = Combination::ALL.map(Combination::name);
        return Err(format!("--only takes one of {}", names.join(", ")));
    }
    Ok(settings)
}

/// All rounds of one combination.
async fn soak(combination: Combination, rounds: usize, seed: u64) -> Tally {
    let began = Instant::now();
    let site = Site::new(combination);
    let contents = Arc::new(Contents::new());
    let mut choices = StdRng::seed_from_u64(seed);
    let mut workers: Vec<Worker> = (0..WORKERS)
        .map(|number| Worker::new(number, seed, Arc::clone(&contents)))
        .collect();
    let mut tally = Tally::default();
    for round in 0..rounds {
        for worker in &mut workers {
            worker.prepare(round % 2 == 1);
        }
        workers = disturb(&site, workers, &mut choices, &mut tally).await;
        let server = site.start();
        let api = Api::new(server.url(), Arc::new(Round::new(u64::MAX)));
        tally.resumed += check::check(&mut workers, &contents, &api).await;
        check::fsck(&mut workers, server.address());
        tally.errors.extend(errors(&server));
        tally.requests += api.round().answered();
        tally.rounds += 1;
        for worker in &mut workers {
            tally.losses.append(&mut worker.losses);
        }
        if !tally.losses.is_empty() {
            break;
        }
    }
    println!("{}: {}", combination.name(), told(&tally, began));
    for loss in tally.losses.iter().take(TOLD) {
        println!(
            "LOST in round {}: {}: {}",
            tally.rounds, loss.what, loss.found
        );
        for event in &loss.history {
            println!("    {event}");
        }
    }
    if !tally.losses.is_empty() {
        for line in &tally.errors {
            println!("the registry's log: {line}");
        }
        println!("the data is left in {}", site.keep().display());
    }
    tally
}

/// Lets all workers loose on a registry, and kills it under them.
async fn disturb(
    site: &Site,
    workers: Vec<Worker>,
    choices: &mut StdRng,
    tally: &mut Tally,
) -> Vec<Worker> {
    let mut server = site.start();
    let round = Arc::new(Round::new(choices.random_range(30..600)));
    let tasks: Vec<_> = workers
        .into_iter()
        .map(|worker| tokio::spawn(worker.work(Api::new(server.url(), Arc::clone(&round)))))
        .collect();
    let due = tokio::time::timeout(PATIENCE, round.is_due()).await;
    // So that it dies anywhere inside an operation, not just after an answer.
    tokio::time::sleep(Duration::from_micros(choices.random_range(0..20_000))).await;
    round.end();
    server.kill();
    let mut workers = Vec::new();
    for task in tasks {
        workers.push(task.await.expect("a worker does not fail"));
    }
    if due.is_err() {
        workers[0].surprise(format!(
            "no kill was due within {PATIENCE:?}: requests hang"
        ));
    }
    tally.requests += round.answered();
    tally.errors.extend(errors(&server));
    workers
}

/// What a registry logged as its own failures.
fn errors(server: &Server) -> Vec<String> {
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("ERROR"));
    lines.map(str::to_owned).collect()
}

fn told(tally: &Tally, began: Instant) -> String {
    format!(
        "{} rounds, each ended by kill -9; {} requests answered, {} cut-off uploads resumed, {} \
         losses ({:.0} s)",
        tally.rounds,
        tally.requests,
        tally.resumed,
        tally.losses.len(),
        began.elapsed().as_secs_f64()
    )
}

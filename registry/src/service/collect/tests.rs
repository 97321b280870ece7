//! Collection against everything else: every order of two that race, and random orders of many.

mod guards;
mod races;
mod random;
mod schedule;
mod world;

//! Where every event is: at every scrape what came in is what went out, was left out, is lost, or waits; and what a
//! bus that is away costs.

mod drain;
mod flow;
mod identity;
mod rig;
mod scraper;

//! `tandem import vapi` as people run it: the binary, a real Postgres, and a simulated Vapi.

#[path = "import/assistants.rs"]
mod assistants;
#[path = "import/changes.rs"]
mod changes;
#[path = "import/faults.rs"]
mod faults;
#[path = "import/report.rs"]
mod report;
#[path = "import/world.rs"]
mod world;

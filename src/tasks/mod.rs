//! What was asked for and what became of it: every store, restore and copy of this machine, in an SQLite database.

//! Each command from the outside: what it takes, what it says, how it ends.


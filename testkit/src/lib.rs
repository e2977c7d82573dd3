//! End-to-end harness: temporary daemons, leak checks, clients.

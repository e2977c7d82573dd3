//! The `docker` command line: flag table, commands, tables, formats.

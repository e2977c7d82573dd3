//! `--change`: Dockerfile instructions applied to a configuration.

//! Checkpoints of containers.

bodies! {
    /// The body of `POST /containers/{id}/checkpoints`.
    pub struct CheckpointCreateRequest {
        #[serde(rename = "CheckpointID")]
        checkpoint_id: String,
        checkpoint_dir: String,
        /// Whether the container ends.
        exit: bool,
    }

    /// One of the answer of `GET /containers/{id}/checkpoints`.
    pub struct CheckpointSummary {
        name: String,
    }
}

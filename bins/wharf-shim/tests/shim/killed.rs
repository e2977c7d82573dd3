//! The shim killed at each of its named points: its records never lie, and what it leaves can be cleared away.

use wharf_task::{Adopted, CreateRequest};

use crate::bench::{Bench, within};

#[tokio::test]
async fn a_shim_killed_at_any_point_leaves_true_records() {
    let points: Vec<_> = wharf_fault::POINTS.iter().filter(|p| p.starts_with("shim.")).collect();
    assert!(points.len() >= 8);
    for point in points {
        let bench = Bench::new();
        let task = bench.try_run("exit 6", point).await;
        within(task.shim.gone()).await;
        match bench.shims.adopt(&task.id).await.expect("adopted") {
            Adopted::Alive { .. } => panic!("{point}: the shim was killed"),
            Adopted::Exited(exit) => {
                assert!(matches!(*point, "shim.recorded" | "shim.reported"), "{point}");
                assert_eq!(exit.status, 6);
            }
            Adopted::Lost { records, .. } => {
                let started = records.iter().any(|r| r.kind == wharf_task::RecordKind::Started);
                assert_eq!(started, matches!(*point, "shim.started" | "shim.reaped" | "shim.drained"), "{point}");
            }
        }
        task.clear_away();
        bench.shims.remove(&task.id).expect("removed");
    }
}

impl Bench {
    /// Creates and starts with a kill point aimed at; the calls fail when it is reached.
    async fn try_run(&self, script: &str, point: &str) -> crate::bench::Task {
        let task = self.spawn(script, &[], serde_json::json!({}), false, Some(point));
        if within(task.shim.create(self.with_rootfs(CreateRequest::default()))).await.is_ok()
            && within(task.shim.start(None)).await.is_ok()
        {
            let _ = within(task.shim.wait(None)).await;
        }
        task
    }
}

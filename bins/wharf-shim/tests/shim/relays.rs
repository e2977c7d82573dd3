//! Relays: connections to a socket that the shim holds arrive at an address in the container's network.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wharf_task::Relay;
use wharf_types::Signal;

use crate::bench::{Bench, within};

#[tokio::test]
async fn a_relay_carries_both_ways_and_each_half_ends_by_itself() {
    let bench = Bench::new();
    let server = TcpListener::bind("127.0.0.1:0").await.expect("listening");
    let to = server.local_addr().expect("address");
    let door = std::net::TcpListener::bind("[::1]:0").expect("listening");
    let address = door.local_addr().expect("address");
    let task = bench.run_with_relay("sleep 1000", Relay { listener: door.into(), to }).await;
    // The server answers with everything it got once its client has ended its half.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut got = Vec::new();
                stream.read_to_end(&mut got).await.expect("read");
                got.reverse();
                stream.write_all(&got).await.expect("written");
            });
        }
    });
    let clients: Vec<_> = (0..20u8)
        .map(|n| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("connected");
                let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i as u8).wrapping_mul(n)).collect();
                stream.write_all(&sent).await.expect("written");
                stream.shutdown().await.expect("half-closed");
                let mut got = Vec::new();
                within(stream.read_to_end(&mut got)).await.expect("read");
                got.reverse();
                assert!(got == sent);
            })
        })
        .collect();
    for client in clients {
        client.await.expect("carried");
    }
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    bench.finish(task).await;
    // Nobody holds the socket any more.
    assert!(TcpStream::connect(address).await.is_err());
}

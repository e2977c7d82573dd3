use std::pin::Pin;
use std::sync::Arc;

use wharf_proto_buildkit::control::BytesMessage;

use crate::{Call, Channel, Code, Service, Status, serve};

struct Echo;

impl Service for Echo {
    fn call(&self, mut call: Call) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send>> {
        Box::pin(async move {
            match call.path.as_str() {
                "/t.Echo/Many" => {
                    while let Some(message) = call.receiver.message::<BytesMessage>().await? {
                        call.sender.send(&message).await?;
                    }
                    Ok(())
                }
                "/t.Echo/One" => {
                    let message: BytesMessage = call.message().await?;
                    call.sender.send(&message).await
                }
                other => Err(Status::new(Code::Unimplemented, format!("no {other}: 100 % ü"))),
            }
        })
    }
}

async fn channel() -> Channel {
    let (ours, theirs) = tokio::net::UnixStream::pair().expect("pair");
    tokio::spawn(serve(theirs, Arc::new(Echo)));
    Channel::open(ours).await.expect("speaks HTTP/2")
}

#[tokio::test]
async fn one_message_and_many_come_back() {
    let channel = channel().await;
    let one: BytesMessage =
        channel.unary("/t.Echo/One", &BytesMessage { data: b"hello".to_vec() }).await.expect("answers");
    assert_eq!(one.data, b"hello");
    let mut exchange = channel.call("/t.Echo/Many", http::HeaderMap::new()).await.expect("opens");
    for i in 0..100u8 {
        exchange.sender.send(&BytesMessage { data: vec![i; 100_000] }).await.expect("sent");
        let back: BytesMessage = exchange.receiver.message().await.expect("comes").expect("is there");
        assert_eq!(back.data, vec![i; 100_000]);
    }
    drop(exchange.sender);
    assert!(exchange.receiver.bytes().await.expect("ends well").is_none());
}

#[tokio::test]
async fn failures_come_with_code_and_message() {
    let channel = channel().await;
    let error = channel.unary::<BytesMessage>("/t.Echo/None", &BytesMessage::default()).await.expect_err("fails");
    assert_eq!((error.code, error.message.as_str()), (Code::Unimplemented, "no /t.Echo/None: 100 % ü"));
}

//! A registry alone, for trying things out.
#[tokio::main]
async fn main() {
    let data = std::env::args().nth(1).unwrap();
    let listener = tokio::net::TcpListener::bind(std::env::args().nth(2).unwrap())
        .await
        .unwrap();
    eprintln!("http://{}", listener.local_addr().unwrap());
    let stop = async { tokio::signal::ctrl_c().await.unwrap() };
    registry::serve(registry::Config::new(data), listener, stop)
        .await
        .unwrap();
}

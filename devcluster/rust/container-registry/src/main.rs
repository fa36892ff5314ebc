//! Serves the crate `container-registry` on a loopback address, to anonymous clients too.
//!
//! Usage: `container-registry ADDRESS:PORT DIRECTORY`
//!
//! The crate's own binary asks every client for credentials. Its test support is the one way to a
//! server that answers as the embedded registries built on this crate do.

use std::{env, net::SocketAddr, path::PathBuf, process, thread};

use container_registry::ContainerRegistry;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, directory] = arguments.as_slice() else {
        eprintln!("usage: container-registry ADDRESS:PORT DIRECTORY");
        process::exit(2);
    };
    let address: SocketAddr = match address.parse() {
        Ok(address) => address,
        Err(error) => {
            eprintln!("{address}: {error}");
            process::exit(2);
        }
    };
    // It takes writes from anyone, so it must not be reachable from another machine.
    if !address.ip().is_loopback() {
        eprintln!("{address} is not a loopback address");
        process::exit(2);
    }

    let mut registry = ContainerRegistry::builder()
        .storage(PathBuf::from(directory))
        .build_for_testing();
    registry.bind(address);
    let _running = registry.run_in_background();
    println!("listening on {address}");
    // The server runs in a thread of its own until a signal ends the process.
    loop {
        thread::park();
    }
}

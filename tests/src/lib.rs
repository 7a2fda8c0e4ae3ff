//! Harness of the tests and of the demo: a lab of network namespaces with real servers and every role as a process,
//! and a real Kubernetes.

pub mod api_lab;
pub mod bench;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod dig;
pub mod first;
pub mod hold;
pub mod lab;
pub mod objects;
pub mod packet;
pub mod probe;
pub mod prog;
pub mod stock;
pub mod ways;

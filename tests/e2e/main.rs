//! End-to-end tests: one binary, one module per story.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a failed expectation is a failed test"
)]

mod agent_api;
mod agent_delta;
mod agent_description;
mod agent_disk;
mod agent_faults;
mod agent_kill;
mod agent_leases;
mod agent_logins;
mod agent_operation;
mod agent_preload;
mod agent_push;
mod agent_scrub;
mod agent_survival;
mod agent_views;
mod chunk_maps;
mod cli;
mod config;
mod doctor;
mod hub_access;
mod hub_download;
mod hub_errors;
mod hub_llama;
mod hub_mirror;
mod hub_support;
mod hub_upload;
mod main_path;
mod mirror_faults;
mod mirror_fill;
mod mirror_gate;
mod mirror_manifests;
mod mirror_peers;
mod mirror_proxy;
mod mirror_room;
mod mirror_support;
mod pull_anywhere;
mod pull_anywhere_faults;
mod registry_access;
mod registry_bucket;
mod registry_bucket_care;
mod registry_bucket_faults;
mod registry_chunk_maps;
mod registry_chunk_maps_care;
mod registry_clients;
mod registry_collection;
mod registry_dialects;
mod registry_discovery;
mod registry_disk_errors;
mod registry_errors;
mod registry_faults;
mod registry_fsck;
mod registry_full_disk;
mod registry_gate;
mod registry_http2;
mod registry_limits;
mod registry_logins;
mod registry_management;
mod registry_ollama;
mod registry_operation;
mod registry_postgres;
mod registry_postgres_faults;
mod registry_postgres_tls;
mod registry_production;
mod registry_pull;
mod registry_push;
mod registry_replicas;
mod registry_support;
mod registry_tls;
mod runtime_clients;
mod runtime_pull;
mod tag;
mod tidy;
mod traces;

"""How latency, throughput and memory grow."""

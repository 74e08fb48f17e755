"""PostgreSQL clusters and Apache Kafka as child processes."""

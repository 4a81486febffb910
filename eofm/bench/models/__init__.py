"""What is scored: encoders, networks of one's own, controls, and their other inputs."""

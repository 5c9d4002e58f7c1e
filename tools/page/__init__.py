"""What makes the fixed files of the page: the runtime, the networks of the landmarks, the example photos."""

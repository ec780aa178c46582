"""The process: threads, clock, requests to the API. The only part of the controller that does I/O."""

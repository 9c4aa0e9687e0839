"""What the engine adds to the work that it carries: scaling, overhead, start-up, memory, and its store."""

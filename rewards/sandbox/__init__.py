"""Running a policy's Python without trust: child processes that own nothing and reach nothing."""

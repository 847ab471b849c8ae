"""What preflight looks at before a run exists, a module a subject; each returns every problem."""

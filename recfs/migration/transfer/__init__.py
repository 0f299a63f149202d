"""Trees that go out of a store, and into one: what is read from where, how it is placed, and what came of it."""

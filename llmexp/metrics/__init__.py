"""Pure numbers and their words: no network, no clock, no global state."""

"""The claims of Jin & Rinard 2024 measured on any model, each beside what explains it without a state."""

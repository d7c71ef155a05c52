"""Models on several devices: device maps, and loading in place."""

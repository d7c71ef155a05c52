"""The public API, one noun per module. Users write `import benchmark`, which loads these modules where they are used."""

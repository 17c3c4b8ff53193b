"""cloud-init's side: the module list, the schema, and this instance's configuration."""

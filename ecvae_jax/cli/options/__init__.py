"""The options of the subcommands, as dataclasses that tyro reads; `ecvae_jax.cli.commands` has a function for each."""

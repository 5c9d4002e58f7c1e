"""The options of the subcommands, dataclasses that tyro reads; `ecvae_jax.cli.commands` has the functions."""

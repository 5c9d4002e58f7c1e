"""The options of the subcommands, as dataclasses that tyro reads; `ecvae_jax.commands` has a function for each."""

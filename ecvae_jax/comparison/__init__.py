"""The priors of the paper trained alike and compared: variants, runs, intervals, tables, verdict."""

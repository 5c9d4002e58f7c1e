"""The three priors of the paper trained alike and set side by side: variants, runs, intervals, tables, verdict."""

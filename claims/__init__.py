"""The claims of the papers (`claims.toml`) and the checks that decide them; `hiso-bench verify` runs them."""

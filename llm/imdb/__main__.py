"""Pre-train imdb-opt into the user cache: `python -m llm.imdb`."""

from llm.imdb.report import main

if __name__ == "__main__":
    main()

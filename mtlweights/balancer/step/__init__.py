"""One backward: measure what the strategy looks at, weigh, write ``.grad``. ``engine`` says in which way."""

"""Recipe of tiny-mixtral, the small trained Mixtral that ships with Paddock."""

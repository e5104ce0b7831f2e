"""The engine: two bound layouts joined on the names become strided copies. Pure: no files, no frameworks."""

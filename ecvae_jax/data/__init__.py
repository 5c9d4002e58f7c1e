"""Photos in, host batches out.

    prepare.py   a source of photos -> a records folder and report.csv
      sources.py   what a source holds: files, identities, groups, tags, given landmarks
      photo.py     one file -> upright RGB pixels, or the reason why not
      detect.py    where the faces are and their landmarks (the only detector imports)
      crop.py      the one crop rule
      by_processes.py, workers.py, journal.py   the work by processes of this machine
      beam/        the same by Apache Beam, on many
      builders.py  the records folder (the only tensorflow-datasets builder)
    faces.py     a records folder -> landmarks, names, images by index
    pipeline.py  faces -> training batches (the only tf.data)
    rendered.py  the embedded heads

Nothing heavy is imported with this package.
"""

"""Photos in, host batches out.

    prepare/     a source of photos -> a records folder and report.csv
      photos/    sources, decoding, given landmarks, the crop rule, identities, splits
      detect/    face detectors, loaded by name: dlib, MediaPipe
    records.py   writes a records folder      faces.py   reads one: landmarks and names, images by index
    manifest.py  finds one, such as the embedded heads, and reads its splits      shards.py  checks its files
    batches.py   faces -> training batches (the only tf.data)
    portraits.py photos or faces of records -> faces for a loaded model
    morph.py     records of faces halfway between two people
    host_tf.py   TensorFlow on the host, without the accelerators      errors.py   DataError and its kinds

Importing this package imports nothing heavy.
"""

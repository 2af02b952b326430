"""Other tools on a sweep's own folds, for `gemma-nli report SWEEP --with`: examples that import nothing of gemma_nli.

fold_file.py         reads what `gemma-nli folds SWEEP data.log_text=true --to FILE` wrote, and trains fold by fold
tfidf_logistic.py    scikit-learn: TF-IDF of post and criterion, one logistic regression
sentence_vectors.py  sentence-transformers: vectors of post and criterion, a logistic regression, or their cosine
"""

"""leamfast: which parts of a face does a recognition model use to recognise one person?"""

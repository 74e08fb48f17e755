-- The owner's own password is kept nowhere: it is made when it is asked for, and only its verifier stays, on the tenant cluster.
DELETE FROM credentials WHERE login = 'direct';

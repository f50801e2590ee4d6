"""Task gradients, out of autograd and off the other ranks. Knows no strategy, and lists nothing as public.

``graph`` reads torch's autograd graph and ``leaves`` what each backward reaches; ``task_gradients`` and
``factored`` take one gradient per task, whole or as two factors, by passes of ``batched``; ``inner_products``
multiply them in float64, ``write_grad`` makes one gradient of them and their weights; ``shared_parameters``,
``ranks`` and ``fsdp`` say whose they are; ``packing`` sends rows between ranks, ``exchange`` and ``messages``
factors; ``functions`` are the autograd Functions behind the scalar, ``switches`` torch's settings around a
step. Nearly all of torch's private parts that are used here are used in this folder: ``_C._autograd``,
``_C._will_engine_execute_node``, ``_C._functorch``, ``_functorch.config``, ``_execution_engine``, ``_utils``,
``_saved_*``, ``_sequence_nr``, ``_input_metadata``, ``_get_backend`` (seen in torch 2.6 to 2.13).
"""

"""The public data files: where they come from, at which commit, and the SHA-256 of each."""

from __future__ import annotations

from typing import NamedTuple

_CONFIG = "tum-pbs/ConFIG/94862437f451f175673bce9c85f3e14bd9182c21"
_SIMULATION = "pinn/config_burgers_simulation_data.npy"
_TWEEBANK = "social-machines/TweebankNLP/442697870da961db2b3c5a9442ca17beb5fdbfd9"


class Source(NamedTuple):
    """Where a file comes from (path below `download.HOST`: repository, commit, path) and its SHA-256."""

    url: str
    sha256: str


#: start of a file's name -> start of its address
_FOLDERS = {
    "tweebank/en_tweet-ud-": f"{_TWEEBANK}/twitter-stanza/data/extern_data/ud2/en_tweet/en_tweet-ud-",
    "tweebank/tweebank-ner-": f"{_TWEEBANK}/Tweebank-NER-v1.0/",
    "sick/": "FTAsr/STS/07fd4720cf00c9c78733718bd032fba7d92efc3a/data/SICK/",
    "abalone/": "jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f/",
    "slu/": "MiuLab/SlotGated-SLU/61f0307c729b1fad479ef1de94aa5ac5dee601b0/data/",
    "mtr/": "tsoumakas/mulan/43f6389095ad71984264db4387a8074b22bc7d4a/data/multi-target/",
    "pinn/config_burgers_": f"{_CONFIG}/experiments/PINN/data/burgers/",
    "molecules/": "deepchem/deepchem/fbe3b911a94a6eb8c84c1a9e7ac67a472c49ea80/datasets/",
}
_SUMS = {
    "tweebank/en_tweet-ud-train.conllu": "ff92d8947dabd41850057dd3a05b32f48610b2e084be4991162b79ea1be8f46d",
    "tweebank/en_tweet-ud-dev.conllu": "3950416f04a540f72b5252d3db354171860831c197c2c04b40c33325a476fa35",
    "tweebank/en_tweet-ud-test.conllu": "64b32264bc6475049335178f6d51be1d2be0cf86b8636022471a796e59305c41",
    "tweebank/tweebank-ner-train.bio": "d5928a7e2af0abb0b7a0e035481094aad1bad5ad87df9694109a78efa21df425",
    "tweebank/tweebank-ner-dev.bio": "bb6629ee2e753b4e179852150d6f9429fd9d41fab37731dbf68c71b2919a539b",
    "tweebank/tweebank-ner-test.bio": "418fa8e75b3d875ec71dbb65098f93c1f865db92b7a02aaea2d265ffdfe66e9e",
    "sick/SICK_train.txt": "266cf8047149bd1d68138dd30439f3122bff30069740ac6705bb6197d9f1b48e",
    "sick/SICK_trial.txt": "5a88cfb62f8c6bd2a3cce0f2421ba2cb8c2be5ab4a800f6f01e2c64aafb7db56",
    "sick/SICK_test_annotated.txt": "2b8aa806658d6fc23c6824c83776c2d4fee7556000817b5ec0f982861413b7d0",
    "abalone/abalone.csv": "eb2de13be807e9bb9ec4128b9c89b98ab23d7739121cfd17b7dde69b46ba7bf6",
    "slu/atis/train/label": "d0a771547665eecbdf9f96ea015ef07d1f6ee9f063e861020dafabb3c2a04377",
    "slu/atis/train/seq.in": "3a670980841b21ab39088b2595efc17d487cdc45769c075a3e5f9458bba28c7f",
    "slu/atis/train/seq.out": "14c7131bd66562f797dbd7189bc7358f0cf354c6afb0785a9ab973c35b58f34c",
    "slu/atis/valid/label": "06957cfe6fdffac84f8280bc3a1f8ca85c85631b363817aa4543aac611f8addf",
    "slu/atis/valid/seq.in": "c7435b96e7948393608c34819628e863c5338f11ca68e8f896d2cc041d8e17f8",
    "slu/atis/valid/seq.out": "83ccff3e36f83a993f8e5b5b82adf3256076f234abda4d784051381d7ac76922",
    "slu/atis/test/label": "ce4bfe6590d9498e1078f30b4137d3e8b3e94277b444b26360c0bf2e9e282761",
    "slu/atis/test/seq.in": "4b2119fc59c37f9398c6605db435d4f467505009e6ee3e5af04fed09f39dc397",
    "slu/atis/test/seq.out": "a4690d6bceadc06876d1ff99bc401744aa981cb321e598ae12a3859d7be53254",
    "slu/snips/train/label": "bfd7df6cf9dd76c5da5d8b61bc85f90386197bdd3d7510c1d324c051537b962f",
    "slu/snips/train/seq.in": "04ad1e3f2121d83c6478f9a4b17d2dbdc21d06d6127f73cb7af835ed733f9855",
    "slu/snips/train/seq.out": "fd5f2121d8055827e5d6b3d3bac30f3d7e94e82a5d437751960cbdd9e1b4f6d3",
    "slu/snips/valid/label": "9c1dd041216f647bcfca838aaf1a48eb5781e4404256d31ff07cd38a5436c52f",
    "slu/snips/valid/seq.in": "64e0f6d8ad8aab3a3828164d7d53731a0993d3ca1aed437ceaca6d3d568d410e",
    "slu/snips/valid/seq.out": "712e6d34feb8d52d208b820a5f8bae6e6ff990f08374507dfde22de389088319",
    "slu/snips/test/label": "37a26da3ad079bb41c42c85a3a8f827eb47efec4c5917ce5d08f4b2736e4f830",
    "slu/snips/test/seq.in": "c1e341173fcea2951a8ca371956a6f81c76de87b9583c62eb87edd6158fa3a7c",
    "slu/snips/test/seq.out": "58c07c9097d5e1f78889765c2a535a160f6455b90b3142055c8051847afcca47",
    "molecules/delaney-processed.csv": "8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189",
    "mtr/andro.arff": "08f0e2757b2a7635136ac58ea76c4e801ffeb0a81116b29e6ac169228c8aa132",
    "mtr/atp1d.arff": "ed935ba476c4994ba40d6712d590fb389709cceba7cf7dbbb33ef28c84762bb9",
    "mtr/atp7d.arff": "77d59efdf4a6329c71c854684de7409d0d61d3bebccd6821ae268c1620c95b2d",
    "mtr/edm.arff": "37777374030f592a53cbcf597ae0aa6105238a1c696dd04ccb229be982f6bc5b",
    "mtr/enb.arff": "8277d9094ccda6da2cd1c2b79c90ca201fa3695e75aca173ffc43138dcab0071",
    "mtr/jura.arff": "78ce7655f49073e3622ef7ba25657b3900a2b279ba3d48cb82e353e56bac3d2a",
    "mtr/oes10.arff": "37f9fa429f6f2ece2cdfd08e84649971e61ee0b4e75d66166c082bacf3d36251",
    "mtr/oes97.arff": "aee74aa656c709f797f45d817c41996be94c2e924c0f1e7ad315fb7e2f1a9498",
    "mtr/osales.arff": "c9c656c7e0131ad1c3f427cea7828f2ed315ec80da6d6f43c05b40b87257efe5",
    "mtr/scpf.arff": "f7d3c7b134c0e5ddff56a7900371cb44328f9b7f550203c4a556929203ea81e9",
    "mtr/sf1.arff": "8f78e64aca64f7c0c7ba4d9b2f114feb2a6f72e6116e87d7dab94e7cab426d93",
    "mtr/sf2.arff": "2c1ac60f3e612b0e0bc9884ffe98a205ce07ca83f3f89c019220fde350396795",
    "mtr/slump.arff": "3a9a9eba416b06c7668153b44073a0e165afbfc9e526d53b174e5f97a707ca6c",
    "mtr/wq.arff": "4a0906b4a51bf52c986790ddaf261ba51faa3da9cffe823badabd88d38d252fe",
    _SIMULATION: "80e202439621db27e5f6a7825c8263e6ff6476a1a901e2d575ce0738c95a2089",
    "molecules/tox21.csv.gz": "48b34e4e59a2bae6f95734cd206c1869ab355f50a5e50bb7371a21f861d5e297",
}


def _source(name: str) -> Source:
    start = next(start for start in _FOLDERS if name.startswith(start))
    return Source(_FOLDERS[start] + name.removeprefix(start), _SUMS[name])


FILES: dict[str, Source] = {name: _source(name) for name in _SUMS}

"""A dozen models, for the size of it."""

from django.contrib.auth import get_user_model
from django.db import models


class Named(models.Model):
    name = models.CharField(max_length=200)

    class Meta:
        abstract = True

    def __str__(self):
        return self.name


class Ward(Named):
    floor = models.IntegerField()


class Room(Named):
    ward = models.ForeignKey(Ward, on_delete=models.CASCADE)


class Speciality(Named):
    description = models.TextField(blank=True)


class Doctor(Named):
    user = models.OneToOneField(get_user_model(), on_delete=models.CASCADE)
    specialities = models.ManyToManyField(Speciality)


class Nurse(Named):
    ward = models.ForeignKey(Ward, on_delete=models.SET_NULL, null=True)


class Insurer(Named):
    address = models.TextField()


class Patient(Named):
    born = models.DateField()
    insurer = models.ForeignKey(Insurer, on_delete=models.PROTECT)
    room = models.ForeignKey(Room, on_delete=models.SET_NULL, null=True)


class Appointment(models.Model):
    doctor = models.ForeignKey(Doctor, on_delete=models.CASCADE)
    patient = models.ForeignKey(Patient, on_delete=models.CASCADE)
    at = models.DateTimeField(db_index=True)

    def __str__(self):
        return f"{self.patient} at {self.at}"


class Drug(Named):
    dose = models.DecimalField(max_digits=8, decimal_places=3)


class Prescription(models.Model):
    appointment = models.ForeignKey(Appointment, on_delete=models.CASCADE)
    drug = models.ForeignKey(Drug, on_delete=models.PROTECT)
    days = models.PositiveIntegerField()

    def __str__(self):
        return f"{self.drug} for {self.days} days"


class Scan(models.Model):
    patient = models.ForeignKey(Patient, on_delete=models.CASCADE)
    image = models.FileField(upload_to="scans")
    facts = models.JSONField(default=dict)

    def __str__(self):
        return f"scan of {self.patient}"


class Invoice(models.Model):
    patient = models.ForeignKey(Patient, on_delete=models.PROTECT)
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    paid = models.BooleanField(default=False)

    def __str__(self):
        return f"{self.amount} of {self.patient}"
